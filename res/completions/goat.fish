# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_goat_global_optspecs
    string join \n config= V/version h/help
end

function __fish_goat_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_goat_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_goat_using_subcommand
    set -l cmd (__fish_goat_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c goat -n "__fish_goat_needs_command" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_needs_command" -s V -l version -d 'print the version'
complete -c goat -n "__fish_goat_needs_command" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_needs_command" -f -a "run" -d 'run the tracker; so does goat without a command'
complete -c goat -n "__fish_goat_needs_command" -f -a "check" -d 'check configuration, database, certificate, ports, clock and permissions'
complete -c goat -n "__fish_goat_needs_command" -f -a "stats" -d 'show the community at a glance'
complete -c goat -n "__fish_goat_needs_command" -f -a "user" -d 'members'
complete -c goat -n "__fish_goat_needs_command" -f -a "file" -d 'torrents'
complete -c goat -n "__fish_goat_needs_command" -f -a "client" -d 'clients that are allowed'
complete -c goat -n "__fish_goat_needs_command" -f -a "node" -d 'goats'
complete -c goat -n "__fish_goat_needs_command" -f -a "torrent" -d 'write a member\'s copy of a torrent, with their announce URLs'
complete -c goat -n "__fish_goat_needs_command" -f -a "log" -d 'list what administrators did'
complete -c goat -n "__fish_goat_needs_command" -f -a "backup" -d 'copy the database into a file; the tracker may be running'
complete -c goat -n "__fish_goat_needs_command" -f -a "restore" -d 'replace the database with a backup; the tracker must not be running'
complete -c goat -n "__fish_goat_needs_command" -f -a "import" -d 'import members with passkeys, or torrents, from another tracker'
complete -c goat -n "__fish_goat_needs_command" -f -a "help" -d 'explain goat, or one command'
complete -c goat -n "__fish_goat_using_subcommand run" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand run" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand check" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand check" -l fix -d 'fix what goat can fix: permissions of files, a damaged journal'
complete -c goat -n "__fish_goat_using_subcommand check" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand check" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand stats" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand stats" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand stats" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "add" -d 'add a member, and show their passkey, API key and a link to sign in with'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "list" -d 'list members, with totals and current activity'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "show" -d 'show a member: totals, clients and addresses'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "ban" -d 'ban a member from all swarms'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "admin" -d 'make a member an administrator, or no longer one'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "rename" -d 'give a member another name'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "unban" -d 'lift the ban of a member'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "remove" -d 'remove a member; the totals of torrents stay as they are'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "passkey" -d 'give a member a new passkey; the old one stops working'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "key" -d 'give a member a new API key; the old one stops working'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "limit" -d 'limit a member to N active torrents; 0: any number'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "invitations" -d 'let a member invite N others'
complete -c goat -n "__fish_goat_using_subcommand user; and not __fish_seen_subcommand_from add list show ban admin rename unban remove passkey key limit invitations credit" -f -a "credit" -d 'add to, or take from, the credited totals of a member'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from add" -l torrent-limit -d 'active on at most N torrents at a time; 0: any number' -r
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from add" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from add" -l admin -d 'make them an administrator, who may see everything through the API'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from add" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from list" -l sort -d 'sort by this column' -r -f -a "id\t''
name\t''
uploaded\t''
downloaded\t''
ratio\t''"
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from list" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from list" -l banned -d 'only banned members'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from list" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from show" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from show" -l secrets -d 'passkey and announce URLs as well'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from show" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from ban" -l reason -d 'what the member is told' -r
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from ban" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from ban" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from ban" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from admin" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from admin" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from admin" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from rename" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from rename" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from rename" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from unban" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from unban" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from unban" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from remove" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from remove" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from passkey" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from passkey" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from passkey" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from key" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from key" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from key" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from limit" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from limit" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from limit" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from invitations" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from invitations" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from invitations" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from credit" -l uploaded -d 'what to add to uploads, such as 10GiB; negative to take away' -r
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from credit" -l downloaded -d 'the same for downloads' -r
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from credit" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from credit" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand user; and __fish_seen_subcommand_from credit" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "add" -d 'register and verify torrents'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "list" -d 'list torrents and their swarms'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "show" -d 'show a torrent: its swarm, factors and totals'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "approve" -d 'approve a torrent that is registered'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "rename" -d 'give a torrent another name'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "revoke" -d 'withdraw the approval of a torrent, or refuse it'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "remove" -d 'remove a torrent; members keep their totals'
complete -c goat -n "__fish_goat_using_subcommand file; and not __fish_seen_subcommand_from add list show approve rename revoke remove free" -f -a "free" -d 'set the percentages credited from now on; freeleech by default'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from add" -l private -d 'write a copy with the private flag, and register that copy' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from add" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from add" -l public -d 'register it even without the private flag'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from add" -l force -d 'overwrite a file that exists, whatever it is'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from add" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from list" -l sort -d 'sort by this column' -r -f -a "id\t''
name\t''
size\t''
seeders\t''
leechers\t''
completed\t''
last-active\t''"
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from list" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from list" -l pending -d 'only those awaiting approval'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from list" -l dead -d 'only those without seeders'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from list" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from show" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from show" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from approve" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from approve" -l all -d 'all torrents that await approval'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from approve" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from approve" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from rename" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from rename" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from rename" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from revoke" -l reason -d 'for the member who sent it' -r
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from revoke" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from revoke" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from remove" -l by -d 'only those that this member announced first' -r
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from remove" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from remove" -l pending -d 'all torrents that await approval'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from remove" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from free" -l all -d 'all torrents, for so many hours; 0 ends that' -r
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from free" -l download -d 'of downloads; default 0' -r
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from free" -l upload -d 'of uploads; default 100' -r
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from free" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from free" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand file; and __fish_seen_subcommand_from free" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand client; and not __fish_seen_subcommand_from list approve deny remove" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand client; and not __fish_seen_subcommand_from list approve deny remove" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand client; and not __fish_seen_subcommand_from list approve deny remove" -f -a "list" -d 'list clients, by the beginning of their User-Agent or peer id'
complete -c goat -n "__fish_goat_using_subcommand client; and not __fish_seen_subcommand_from list approve deny remove" -f -a "approve" -d 'allow clients whose User-Agent or peer id begins with PREFIX'
complete -c goat -n "__fish_goat_using_subcommand client; and not __fish_seen_subcommand_from list approve deny remove" -f -a "deny" -d 'withdraw the approval of clients'
complete -c goat -n "__fish_goat_using_subcommand client; and not __fish_seen_subcommand_from list approve deny remove" -f -a "remove" -d 'forget a client, so that it can be suggested again'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from list" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from list" -l pending -d 'only those awaiting approval'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from list" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from approve" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from approve" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from approve" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from deny" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from deny" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from deny" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from remove" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from remove" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand client; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand node; and not __fish_seen_subcommand_from list" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand node; and not __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand node; and not __fish_seen_subcommand_from list" -f -a "list" -d 'list the goats that are one tracker by Redis, and what they do'
complete -c goat -n "__fish_goat_using_subcommand node; and __fish_seen_subcommand_from list" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand node; and __fish_seen_subcommand_from list" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand node; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand torrent" -l for -d 'the member' -r
complete -c goat -n "__fish_goat_using_subcommand torrent" -l out -d 'where to write the copy, or - for stdout; default TORRENT@NAME.torrent' -r -F
complete -c goat -n "__fish_goat_using_subcommand torrent" -l for-all -d 'write a copy for each member who is not banned into this folder' -r -f -a "(__fish_complete_directories)"
complete -c goat -n "__fish_goat_using_subcommand torrent" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand torrent" -l force -d 'overwrite a file that exists, whatever it is'
complete -c goat -n "__fish_goat_using_subcommand torrent" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand torrent" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand log" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand log" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand log" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand backup" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand backup" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand restore" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand restore" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand restore" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand import" -l keys -d 'make API keys for the members, and write them into this new file' -r -F
complete -c goat -n "__fish_goat_using_subcommand import" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand import" -l json -d 'print one JSON document'
complete -c goat -n "__fish_goat_using_subcommand import" -s h -l help -d 'Print help'
complete -c goat -n "__fish_goat_using_subcommand help" -l config -d 'instead of ~/.config/goat/config.json' -r -F
complete -c goat -n "__fish_goat_using_subcommand help" -l man -d 'print the manual page'
complete -c goat -n "__fish_goat_using_subcommand help" -l bash -d 'print completions for bash'
complete -c goat -n "__fish_goat_using_subcommand help" -l zsh -d 'print completions for zsh'
complete -c goat -n "__fish_goat_using_subcommand help" -l fish -d 'print completions for fish'
complete -c goat -n "__fish_goat_using_subcommand help" -s h -l help -d 'Print help'
