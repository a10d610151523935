"""Pictures and pages: charts as SVG, and as PNG where matplotlib is there, and HTML that opens from a disk; knows nothing of runs."""
