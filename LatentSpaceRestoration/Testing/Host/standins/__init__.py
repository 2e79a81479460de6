"""Stand-ins for what Slicer's application shell gives and the ``slicer-core`` wheel does not.

MRML, its logics and ``slicer.util`` are the real ones, from the wheel. Everything in this package
is a stand-in: the Qt idioms of PythonQt over PySide6, a few qMRML and CTK widgets, the application
object, the module manager and the file readers. They cover what the module uses and no more, and
they are strict: an unknown attribute, signal, property or switch is an error, as it is in PythonQt.
"""
