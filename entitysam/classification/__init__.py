"""Names for entities: pictures of a masklet go to a classifier, its answers become class-specific results.

EntitySAM, end of section 3.3.4 and section 1 of the supplement. In order: `frame_choice` picks the frames, `visual_prompts`
draws the pictures, a classifier (`vlm`, `clip`, `none`) answers, `naming` counts the votes, `protocols` makes the
segments of a task. The module knows masks and frames only, so it names the masks of any method.
"""
