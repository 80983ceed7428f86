# Fish completion for `osc-containers` and `osc containers`.
#
# The program completes its own arguments if argcomplete is installed for its Python. What this adds to osc must be there
# before osc is completed, so the file belongs into a conf.d directory of fish.

function __osc_containers_complete
    set -l line (commandline --current-process --cut-at-cursor | string collect)
    set line (string replace --regex '^\s*osc\s(.*?\s)?containers(?=\s)' osc-containers -- $line)
    set -lx COMP_LINE $line
    set -lx COMP_POINT (string length -- $line)
    set -lx COMP_TYPE
    set -lx _ARGCOMPLETE 1
    set -lx _ARGCOMPLETE_SHELL fish
    set -lx _ARGCOMPLETE_DFS \t
    set -lx _ARGCOMPLETE_IFS \n
    osc-containers 8>&1 9>/dev/null >/dev/null 2>/dev/null </dev/null
end

complete --command osc-containers --no-files --arguments '(__osc_containers_complete)'
complete --command osc --condition __fish_use_subcommand --no-files --arguments containers
complete --command osc --condition '__fish_seen_subcommand_from containers' --no-files \
    --arguments '(__osc_containers_complete)'
