"""The workshop: a half-built checkout, whose six gaps the student fills; see `labkit.lab.taller`.

Reading order: `pieces` is what a student is handed, `solutions` fills the gaps, `assembly` makes
services of functions, `shop` runs them on the story's orders, `chaos` kills them, `writing` and
`handing` carry them into the next session. The attacks are exercises: `labkit.lab.exercises`.
"""
