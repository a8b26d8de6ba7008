# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_zpci_io_global_optspecs
    string join \n json h/help V/version
end

function __fish_zpci_io_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_zpci_io_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_zpci_io_using_subcommand
    set -l cmd (__fish_zpci_io_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c zpci-io -n "__fish_zpci_io_needs_command" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -s V -l version -d 'Print version'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "list" -d 'List the zPCI functions of this machine'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "info" -d 'Show what is known about a function'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "bind" -d 'Give a function to the driver zpci_vfio_pci'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "unbind" -d 'Give a function back to its own driver'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "load" -d 'Load 1, 2, 4 or 8 bytes (PCILG)'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "store" -d 'Store 1, 2, 4 or 8 bytes (PCISTG)'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "store-block" -d 'Store a block, whole or not at all (PCISTB)'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "batch" -d 'Issue several instructions while the function is open'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "trace" -d 'Print each instruction that the driver issues, until interrupted'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "stats" -d 'Show how requests wait for the device lock'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "doctor" -d 'Check whether this machine has what the zPCI I/O region needs'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "check" -d 'Check whether the region works on a function'
complete -c zpci-io -n "__fish_zpci_io_needs_command" -f -a "demo" -d 'Show what the region does, step by step'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand list" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand list" -s h -l help -d 'Print help'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand info" -l open -d 'Open the function and ask VFIO and the zPCI I/O region, too'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand info" -l iommufd -d 'Open the function by its VFIO character device and iommufd, as is usual where it has one'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand info" -l group -d 'Open the function by its VFIO group and a container'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand info" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand bind" -l force -d 'Take it from whoever uses it'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand bind" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand bind" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand unbind" -l force -d 'Take it from any driver; if a process has it open, ask for it and wait'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand unbind" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand unbind" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand load" -l iommufd -d 'Open the function by its VFIO character device and iommufd, as is usual where it has one'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand load" -l group -d 'Open the function by its VFIO group and a container'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand load" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store" -l iommufd -d 'Open the function by its VFIO character device and iommufd, as is usual where it has one'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store" -l group -d 'Open the function by its VFIO group and a container'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store-block" -l iommufd -d 'Open the function by its VFIO character device and iommufd, as is usual where it has one'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store-block" -l group -d 'Open the function by its VFIO group and a container'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store-block" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand store-block" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand batch" -l iommufd -d 'Open the function by its VFIO character device and iommufd, as is usual where it has one'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand batch" -l group -d 'Open the function by its VFIO group and a container'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand batch" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand batch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand trace" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand trace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand stats" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand doctor" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand check" -l repeat -d 'How often the register is loaded, to take the time' -r
complete -c zpci-io -n "__fish_zpci_io_using_subcommand check" -l with -d 'Only load the register, by what this driver has in place of the region: a read of the BAR' -r -f -a "vfio-pci\t''
ism_vfio_pci\t''"
complete -c zpci-io -n "__fish_zpci_io_using_subcommand check" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand demo" -l force -d 'Take the function from another VFIO driver, or from whoever uses it'
complete -c zpci-io -n "__fish_zpci_io_using_subcommand demo" -l json -d 'Print JSON: one value, or one line for each result of \'batch\' and \'trace\''
complete -c zpci-io -n "__fish_zpci_io_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
