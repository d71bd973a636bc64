"""Labels entities: crops of a masklet go to a classifier, its answers become class-specific results.

EntitySAM, end of section 3.3.4 and section 1 of the supplement. The steps in order: `frame_choice` selects frames,
`visual_prompts` draws crops, a classifier (`vlm`, `clip`, `none`) answers, `labeller` votes over the frames of an entity,
`protocols` forms the segments of a task. The input is masks and frames, so the masks of any method can be labelled.
"""
