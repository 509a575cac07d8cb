"""RefCut: click segmentation steered by a reference mask on another image. Knows nothing of Label Studio."""
