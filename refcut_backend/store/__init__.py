"""What must survive a restart: connections and references, in one SQL database."""
