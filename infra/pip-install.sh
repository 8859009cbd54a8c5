#!/bin/sh
# Install a lock file with pip and show the progress: on a terminal one updated line, elsewhere a line per quarter.
#   infra/pip-install.sh PYTHON LOCK LOG
# The output of pip goes to LOG. The exit status is that of pip. After Ctrl-C it is 0: make receives the signal too and
# stops, and prints an error only for a failed recipe.
set -u
python=$1 lock=$2 log=$3
wanted=$(grep -c '==' "$lock")
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

count() { # prints the number of installed packages: each has a .dist-info folder
  set -- "$site"/*.dist-info
  if [ -e "$1" ]; then echo $#; else echo 0; fi
}
before=$(count)
: >"$log" # it is read below, maybe before pip has begun to write

"$python" -m pip install --disable-pip-version-check --no-color --progress-bar off --require-hashes -r "$lock" \
  >"$log" 2>&1 &
pip=$!

erase() { if [ -t 1 ]; then printf '\r\033[K'; fi; }
stop() { # a background process of a script ignores Ctrl-C, so pip gets another signal
  trap '' INT TERM
  kill "$pip" 2>/dev/null
  wait "$pip" 2>/dev/null
  erase
  exit "$1"
}
trap 'stop 0' INT
trap 'stop 143' TERM

began=$(date +%s) quarter=0
while kill -0 "$pip" 2>/dev/null; do
  # pip names each package that it collects. Then it prints the names of all, and nothing while it installs them.
  if names=$(grep '^Installing collected packages: ' "$log"); then
    verb=installing total=$(($(echo "$names" | wc -w) - 3)) ready=$(($(count) - before)) name=
  else
    verb=collecting total=$wanted ready=$(grep -cE '^(Collecting|Requirement already satisfied:) ' "$log")
    name=$(sed -n 's/^Collecting \([A-Za-z0-9._-]*\).*/ \1/p' "$log" | tail -n 1)
  fi
  if [ -t 1 ]; then
    erase
    printf '    %s %d/%d%s, %d s' "$verb" "$ready" "$total" "$name" $(($(date +%s) - began))
  elif [ "$verb $((4 * ready / total))" != "$quarter" ]; then
    quarter="$verb $((4 * ready / total))"
    echo "    $verb $ready/$total"
  fi
  sleep 0.2
done
wait "$pip"
status=$?
erase
exit "$status"
