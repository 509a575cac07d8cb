"""`refcut demo`: a real Label Studio with projects, references and this backend attached, for trying things out."""
