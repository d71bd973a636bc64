"""Labels videos: `video.label_video` is the one function that leads from masks and frames to an answer per entity.

`results` applies it to a result folder, `evaluation` to a data set, `engine.evaluate.label_predictions` to saved predictions.
"""
