# Completions of goat for bash, made by `goat help --bash`.
_goat() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} name=${COMP_WORDS[1]} words= files=
    case "$name" in
        "$cur") [ "$COMP_CWORD" = 1 ] && words="run check stats user file client torrent backup restore import help --version" ;;
        user) [ "$COMP_CWORD" = 2 ] && words="add list show ban unban remove passkey key limit credit" || name+=" ${COMP_WORDS[2]}" ;;
        file) [ "$COMP_CWORD" = 2 ] && words="add list show approve revoke remove free" || name+=" ${COMP_WORDS[2]}" ;;
        client) [ "$COMP_CWORD" = 2 ] && words="list approve deny remove" || name+=" ${COMP_WORDS[2]}" ;;
    esac
    [ -n "$words" ] || case "$name:$prev" in
        "run:--config") files=1 ;;
        "run:"*) words="--config" ;;
        "check:--config") files=1 ;;
        "check:"*) words="--fix --json --config" ;;
        "stats:--config") files=1 ;;
        "stats:"*) words="--json --config" ;;
        "user add:--torrent-limit") return ;;
        "user add:--config") files=1 ;;
        "user add:"*) words="--torrent-limit --admin --json --config" ;;
        "user list:--sort") words="id name uploaded downloaded ratio" ;;
        "user list:--config") files=1 ;;
        "user list:"*) words="--sort --banned --json --config" ;;
        "user show:--config") files=1 ;;
        "user show:"*) words="--json --config" ;;
        "user ban:--reason") return ;;
        "user ban:--config") files=1 ;;
        "user ban:"*) words="--reason --config" ;;
        "user unban:--config") files=1 ;;
        "user unban:"*) words="--config" ;;
        "user remove:--config") files=1 ;;
        "user remove:"*) words="--config" ;;
        "user passkey:--config") files=1 ;;
        "user passkey:"*) words="--json --config" ;;
        "user key:--config") files=1 ;;
        "user key:"*) words="--json --config" ;;
        "user limit:--config") files=1 ;;
        "user limit:"*) words="--config" ;;
        "user credit:--uploaded") return ;;
        "user credit:--downloaded") return ;;
        "user credit:--config") files=1 ;;
        "user credit:"*) words="--uploaded --downloaded --config" ;;
        "file add:--private") files=1 ;;
        "file add:--config") files=1 ;;
        "file add:"*) files=1 words="--private --public --json --config" ;;
        "file list:--sort") words="id name size seeders leechers snatches activity" ;;
        "file list:--config") files=1 ;;
        "file list:"*) words="--pending --dead --sort --json --config" ;;
        "file show:--config") files=1 ;;
        "file show:"*) words="--json --config" ;;
        "file approve:--config") files=1 ;;
        "file approve:"*) words="--all --config" ;;
        "file revoke:--config") files=1 ;;
        "file revoke:"*) words="--config" ;;
        "file remove:--by") return ;;
        "file remove:--config") files=1 ;;
        "file remove:"*) words="--pending --by --config" ;;
        "file free:--download") return ;;
        "file free:--upload") return ;;
        "file free:--config") files=1 ;;
        "file free:"*) words="--download --upload --json --config" ;;
        "client list:--config") files=1 ;;
        "client list:"*) words="--pending --json --config" ;;
        "client approve:--config") files=1 ;;
        "client approve:"*) words="--config" ;;
        "client deny:--config") files=1 ;;
        "client deny:"*) words="--config" ;;
        "client remove:--config") files=1 ;;
        "client remove:"*) words="--config" ;;
        "torrent:--for") return ;;
        "torrent:--out") files=1 ;;
        "torrent:--for-all") files=1 ;;
        "torrent:--config") files=1 ;;
        "torrent:"*) files=1 words="--for --out --for-all --config" ;;
        "backup:--config") files=1 ;;
        "backup:"*) files=1 words="--config" ;;
        "restore:--config") files=1 ;;
        "restore:"*) files=1 words="--config" ;;
        "import:--config") files=1 ;;
        "import:"*) files=1 words="--config" ;;
        "help:--config") files=1 ;;
        "help:"*) words="--man --bash --zsh --fish --config" ;;
        "--version:--config") files=1 ;;
        "--version:"*) words="--config" ;;
    esac
    local IFS=$'\n'
    COMPREPLY=($(IFS=' ' compgen -W "$words" -- "$cur"))
    [ -z "$files" ] || COMPREPLY+=($(compgen -f -- "$cur"))
}
complete -o filenames -F _goat goat
