# Completion in bash for `osc-containers` and for `osc containers`.
#
# The program completes itself, by argcomplete, which its Python needs. osc's own completion is a script that knows osc's
# commands alone; it is asked for everything that is not ours. So this file must be read when the shell starts: it is for
# /etc/bash_completion.d, or to be sourced in ~/.bashrc.

_osc_containers_ask() { # LINE UP TO THE CURSOR
    local IFS=$'\013' LC_ALL=C
    COMPREPLY=($(
        COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=$COMP_TYPE _ARGCOMPLETE=1 _ARGCOMPLETE_SHELL=bash \
            _ARGCOMPLETE_COMP_WORDBREAKS=$COMP_WORDBREAKS \
            osc-containers 8>&1 9>/dev/null >/dev/null 2>&1 </dev/null
    ))
}

_osc_containers() {
    local LC_ALL=C
    _osc_containers_ask "${COMP_LINE:0:COMP_POINT}"
}

_osc_containers_in_osc() {
    local LC_ALL=C IFS=$' \t\n' helper
    local line=${COMP_LINE:0:COMP_POINT}
    local osc='^[[:space:]]*[^[:space:]]+([[:space:]]+(-A|--apiurl|-c|--config)[[:space:]]+[^[:space:]]+|[[:space:]]+-[^[:space:]]+)*'
    if [[ $line =~ $osc[[:space:]]+containers([[:space:]].*)$ ]]; then
        _osc_containers_ask "osc-containers${BASH_REMATCH[3]}"
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
