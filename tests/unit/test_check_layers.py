#!/usr/bin/env python3
"""tools/check_layers.py on trees that are made up: what it must find, and what it must let pass."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))
from check_layers import Tree  # noqa: E402


class CheckLayers(unittest.TestCase):
    def expect(self, files, *words):
        """One fault with all the words in it; without words none."""
        faults = Tree(files).faults()
        self.assertEqual(len(faults), 1 if words else 0, faults)
        for word in words:
            self.assertIn(word, faults[0])

    def test_layers(self):
        self.expect({"src/engine/a.c": '#include "blocks/b.h"\n#include <stdio.h>\n', "src/blocks/b.h": ""})
        self.expect({"src/blocks/b.c": '\n#include "engine/a.h"\n'}, "src/blocks/b.c:2", "engine/a.h")
        self.expect({"src/new/a.c": ""}, "unknown layer 'new'")
        self.expect({"programs/qwen3/a.c": '#include "qwen3.h"\n#include "common/b.h"\n'})
        self.expect({"programs/qwen3/a.c": '#include "base/status.h"\n'}, "base/status.h")

    def test_mpi(self):
        self.expect({"src/comm/mpi.c": "#include <mpi.h>\n"})
        self.expect({"src/comm/comm.c": "#include <mpi.h>\n"}, "mpi.h is for the MPI backend only")

    def test_algorithms_see_no_messages(self):
        comm = {"src/comm/comm.h": ""}
        direct = {"src/attention/tile.h": '#include "comm/comm.h"\n'}
        through = {"src/attention/run.c": '#include "attention/attention.h"\n',
                   "src/attention/attention.h": '#include "attention/shape.h"\n',
                   "src/attention/shape.h": '#include "comm/comm.h"\n'}
        self.expect({**comm, **direct}, "src/attention/tile.h", "src/comm/comm.h")
        faults = Tree({**comm, **through}).faults()
        self.assertEqual([f.split(":")[0] for f in faults], ["src/attention/run.c", "src/attention/attention.h"])
        self.assertTrue(faults[0].endswith("src/attention/attention.h -> src/attention/shape.h -> src/comm/comm.h"))
        self.expect({**comm, "src/attention/movement_local.c": '#include "comm/comm.h"\n'})

    def test_headers_in_a_circle(self):
        files = {"src/engine/a.h": '#include "engine/b.h"\n', "src/engine/b.h": '#include "c.h"\n',
                 "src/engine/c.h": '#include "engine/a.h"\n', "src/engine/d.h": '#include "engine/a.h"\n'}
        self.expect(files, "include each other", "src/engine/a.h -> src/engine/b.h", "src/engine/c.h -> src/engine/a.h")
        files["src/engine/c.h"] = ""
        self.expect(files)

    def test_files_in_a_circle(self):
        files = {"src/engine/a.h": "int a(int x);\n", "src/engine/b.h": "struct t *b(void)\n    ATTRIBUTE;\n",
                 "src/engine/a.c": "int a(int x)\n{\n    return b() ? x : 0;\n}\n",
                 "src/engine/b.c": "struct t *b(void)\n{\n    return a(1) ? 0 : 0;\n}\n"}
        self.expect(files, "use each other", "src/engine/a.c -> src/engine/b.c b", "src/engine/b.c -> src/engine/a.c a")
        one_way = "struct t *b(void)\n{\n    /* a */\n    f(\"a\", x.a, y->a);\n}\n#define A a\n"
        self.expect({**files, "src/engine/b.c": one_way})
        # Files that implement the same header are one.
        self.expect({"src/engine/a.h": "int a(int x);\nint b(void);\n", "src/engine/a.c": files["src/engine/a.c"],
                     "src/engine/b.c": files["src/engine/b.c"].replace("struct t *", "int ")})

    def test_static_functions_are_no_use(self):
        one = "static int helper(void)\n{\n    return 0;\n}\n"
        self.expect({"src/engine/a.c": one, "src/engine/b.c": one, "src/engine/a.h": "", "src/engine/b.h": ""})


if __name__ == "__main__":
    unittest.main()
