# SPDX-License-Identifier: GPL-2.0
#
# How Sphinx makes pages of this directory: make htmldocs.

project = 'zpci-vfio-pci'
copyright = 'The zpci-vfio-pci authors'
exclude_patterns = ['output']
highlight_language = 'none'
html_theme = 'alabaster'
html_show_sphinx = False
