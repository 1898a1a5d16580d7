#!/usr/bin/env bash
# All checks of this repository on a machine that has Python 3.11 or later and nothing else: `bash tests/run.sh`.
#
# Installs what the tests need (Debian's packages as root, Python's in .venv), then does `python -m tests` with the
# arguments that it was given. Where it may not install it says what to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin"

fail() {
  echo "tests/run.sh: $1" >&2
  exit 1
}

# Each program that a test runs, and the Debian package that has it. (/usr/bin/python3: rsync's rrsync is written for it.)
programs=(
  sha256sum:coreutils strace:strace mount:mount unshare:util-linux ip:iproute2 mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs
  rsync:rsync /usr/bin/python3:python3 ssh:openssh-client ssh-keygen:openssh-client sshd:openssh-server
  smbd:samba smbpasswd:samba-common-bin busybox:busybox mkntfs:ntfs-3g fusermount3:fuse3 git:git
  chromium:chromium pdftotext:poppler-utils
)

# Python first: nothing is installed for a Python that is too old.
python=$(command -v python3) || fail "python3 is not on PATH; install Python 3.11 or later"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python is Python $version; put Python 3.11 or later first on PATH, as python3"

missing=()
for pair in "${programs[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian keeps what makes a virtual environment in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  [ "$("$python" -c 'import sys; print(sys.base_prefix)')" = /usr ] ||
    fail "$python cannot make virtual environments (it has no ensurepip); install a Python that can"
  missing+=("python$version-venv")
fi

install() (
  export DEBIAN_FRONTEND=noninteractive
  # Installing a server must not start it.
  policy=/usr/sbin/policy-rc.d
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$log" "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  for step in "update" "install -y --no-install-recommends $*"; do
    # shellcheck disable=SC2086 # the step's words are meant to be split
    if ! apt-get -qq -o Dpkg::Use-Pty=0 $step >"$log" 2>&1; then
      cat "$log" >&2
      exit 1
    fi
  done
)

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "install ${missing[*]} first; the tests skip nothing for lack of a program"
  fi
  install "${missing[@]}"
fi

"$python" -m venv .venv
.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
exec .venv/bin/python -m tests "$@"
