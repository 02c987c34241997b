"""defectflow: photographs of one part in, a calibrated good/bad inspector with heatmaps out."""
