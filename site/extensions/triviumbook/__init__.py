"""What the book needs beyond Jupyter Book: small Sphinx extensions, one concern a file.

cache       the execution cache follows the code, the data and the installed packages
citations   author-year citations and the bibliography's form
colab       a chapter's .md as a notebook that reads well without Sphinx (no Sphinx needed)
notebooks   writes one notebook a chapter and links to it
offline     vendored MathJax and widgets: no request leaves the host
pages       descriptions, social cards, family badges, repository buttons
record      the tables of "About this build"
repository  where the book's source lives (no Sphinx needed)
roles       the few roles of the book's own
"""
