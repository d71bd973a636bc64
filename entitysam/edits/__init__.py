"""Corrections of a result: typed edits, their journal with undo and redo, and what they do to id maps and tables.

Nothing here knows of a server. The result itself is never changed.
"""
