#!/bin/sh
# usage: interpreters.sh FROM TO: of every FROM/<minor version> that holds a Python of that version, what compiling
# byte-code needs, at TO/<minor version>, with the byte-code of its own standard library.
set -eu
from=$1
to=$2
mkdir -p "$to"
for source in "$from"/*; do
    version=${source##*/}
    python=bin/python$version
    library=lib/python$version
    if [ ! -x "$source/$python" ]; then
        echo "no Python $version in the image given for it: its bundles will have no byte-code"
        continue
    fi
    prefix=$to/$version
    mkdir -p "$prefix/bin" "$prefix/lib"
    cp -p "$source/$python" "$prefix/bin/"
    cp -pR "$source/$library" "$prefix/lib/"
    cp -pP "$source/lib/libpython$version"*.so* "$prefix/lib/" 2>/dev/null || true  # a static build has none
    cd "$prefix/$library"
    rm -rf test idlelib tkinter turtledemo lib2to3 ensurepip site-packages config-* lib-dynload/_test* lib-dynload/_tkinter*
    find . -depth -name __pycache__ -exec rm -rf {} +
    cd /
    # By hash and never checked: the files' times may change on the way into another layer.
    LD_LIBRARY_PATH=$prefix/lib "$prefix/$python" -I -m compileall -q --invalidation-mode unchecked-hash "$prefix/$library"
    # What is no Python of that version, or cannot run on this base, ends the build here.
    LD_LIBRARY_PATH=$prefix/lib "$prefix/$python" -I -S -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')"
done
