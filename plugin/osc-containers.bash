# Bash completion for `osc-containers` and `osc containers`.
#
# The program completes its own arguments if argcomplete is installed for its Python. For all other osc commands, this
# calls osc's completion script, which does not know ours. Because it replaces the completion of osc, the file must be
# read when the shell starts: install it to /etc/bash_completion.d, or source it in ~/.bashrc.

_osc_containers_complete() { # LINE UP TO THE CURSOR
    local IFS=$'\013' LC_ALL=C
    COMPREPLY=($(
        COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=$COMP_TYPE _ARGCOMPLETE=1 _ARGCOMPLETE_SHELL=bash \
            _ARGCOMPLETE_COMP_WORDBREAKS=$COMP_WORDBREAKS \
            osc-containers 8>&1 9>/dev/null >/dev/null 2>&1 </dev/null
    ))
}

_osc_containers() {
    local LC_ALL=C
    _osc_containers_complete "${COMP_LINE:0:COMP_POINT}"
}

_osc_containers_in_osc() {
    local LC_ALL=C IFS=$' \t\n' helper
    local line=${COMP_LINE:0:COMP_POINT}
    local osc='^[[:space:]]*[^[:space:]]+([[:space:]]+(-A|--apiurl|-c|--config)[[:space:]]+[^[:space:]]+|[[:space:]]+-[^[:space:]]+)*'
    if [[ $line =~ $osc[[:space:]]+containers([[:space:]].*)$ ]]; then
        _osc_containers_complete "osc-containers${BASH_REMATCH[3]}"
        return
    fi
    compopt +o nospace 2>/dev/null
    COMPREPLY=()
    for helper in /usr/share/osc/complete /usr/lib64/osc/complete /usr/lib/osc/complete; do
        if [[ -s $helper ]]; then
            COMPREPLY=($(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT COMP_TYPE=$COMP_TYPE "$helper" "$@" 2>/dev/null))
            break
        fi
    done
    if [[ $line =~ $osc[[:space:]]+([^[:space:]-]*)$ && containers == "${BASH_REMATCH[3]}"* ]]; then
        COMPREPLY+=(containers)
    fi
}

complete -o nospace -o default -o bashdefault -F _osc_containers osc-containers
complete -o nospace -o default -o bashdefault -F _osc_containers_in_osc osc
