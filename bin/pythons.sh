# Finds the Pythons of this machine. The scripts in this folder read it with `.`; it runs nothing by itself.

# python_version PYTHON: prints its version, as 3.12, if it really runs, is 3.11 or newer, and can make a
# virtual environment. A name on PATH alone says nothing: pyenv puts one there for every version that it
# keeps, and most of them only print why they do not run; Debian's python3 has no ensurepip by itself.
python_version() {
    "$1" -I -c '
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
import ensurepip, ssl, venv
print("%d.%d" % sys.version_info[:2])
' 2>/dev/null </dev/null
}

# on_path, of_pyenv: print what may be a Python, one a line.
on_path() (
    IFS=:
    set -f
    for folder in $PATH; do
        for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
            if [ -x "$folder/$name" ]; then printf '%s\n' "$folder/$name"; fi
        done
    done
)
of_pyenv() {
    for python in "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin/python; do
        if [ -x "$python" ]; then printf '%s\n' "$python"; fi
    done
}

# that_run: turns such lines into "VERSION<tab>PYTHON", one for each version, the newest first.
that_run() {
    while read -r python; do
        if version=$(python_version "$python"); then printf '%s\t%s\n' "$version" "$python"; fi
    done | awk -F '\t' '!seen[$1]++' | sort -t . -k 1,1nr -k 2,2nr
}

# folders_of: joins the folders of such Pythons with colons; of a virtual environment, that of the Python behind it.
folders_of() {
    while read -r python; do
        "$python" -I -c 'import sys; print(sys.base_prefix + "/bin", end=":")' </dev/null
    done
}
