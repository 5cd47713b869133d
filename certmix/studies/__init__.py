"""Studies compose the stations: data, models, sampling, bounds, radii, records, report."""
