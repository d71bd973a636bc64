"""`entitysam serve`: a page to look at results, to correct and to export them.

`app` builds the server from `routes/`; `opened` is one open result, `workspace` all of them and who may see them. The page itself is
in `static/`: plain ES modules and CSS, sent as they are.
"""
