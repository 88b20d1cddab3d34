"""Node's side of `labkit.lab.scaling.cluster`: a script, and what it once printed."""
