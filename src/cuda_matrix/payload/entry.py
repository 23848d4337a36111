"""Owns the version gate; deployed as `__main__.py`. Must parse under Python 2.7, so that an old Python can say so.

Exit code 97 means "this Python is too old, try the next", 98 "its standard library is incomplete, try the next"
(python3-minimal has no json), and 70 a bug of the payload. Must not know what the payload does.
"""

import sys

if sys.version_info < (3, 7):  # noqa: UP036 - older Pythons are exactly what this line is for
    sys.stderr.write(
        "cuda-matrix: Python " + sys.version.split()[0] + " is too old, 3.7 is needed: " + str(sys.executable) + "\n"
    )
    sys.exit(97)

import os

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
if HERE not in sys.path:  # PYTHONSAFEPATH leaves it out
    sys.path.insert(0, HERE)

try:
    from cuda_matrix_payload import supervisor
except ImportError as error:
    sys.stderr.write("cuda-matrix: " + str(error) + ": " + str(sys.executable) + "\n")
    sys.exit(98)

try:
    CODE = supervisor.main(HERE)
except Exception:
    import traceback

    traceback.print_exc()
    CODE = 70
sys.stderr.flush()
os._exit(CODE)  # the image's own exit handlers are not ours to run
