#!/usr/bin/env python3
"""A second opinion on schemas/: pywbem's MOF compiler must accept every file.

Needs pywbem. Prints each file that is refused, and exits with 1 if there is one.
"""

import pathlib
import sys

from pywbem import CIMError, MOFCompileError, MOFCompiler, MOFWBEMConnection

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "schemas"
NAMESPACE = "root/virtualization/v2"


def main():
    """Compiles every file in one namespace and looks each class up afterwards."""
    folders = [str(SCHEMAS)] + [str(p) for p in sorted(SCHEMAS.iterdir()) if p.is_dir()]
    connection = MOFWBEMConnection()
    # A class that is not known yet is looked for in the folders by its file name.
    compiler = MOFCompiler(connection, search_paths=folders, log_func=None)
    compiler.compile_file(str(SCHEMAS / "qualifiers.mof"), NAMESPACE)
    files = sorted(p for p in SCHEMAS.glob("*/*.mof"))
    refused = 0
    for file in files:
        if file.stem in connection.classes.get(NAMESPACE, {}):
            continue
        try:
            compiler.compile_file(str(file), NAMESPACE)
        except (MOFCompileError, CIMError) as error:
            refused += 1
            print(f"{file.relative_to(SCHEMAS.parent)}: {error}", file=sys.stderr)
    known = connection.classes.get(NAMESPACE, {})
    for file in files:
        if file.stem not in known and not refused:
            refused += 1
            print(f"{file.relative_to(SCHEMAS.parent)}: declares no {file.stem}", file=sys.stderr)
    print(f"pywbem: {len(known)} classes of {len(files)} files, {refused} refused")
    return 1 if refused or not files else 0


if __name__ == "__main__":
    sys.exit(main())
