# shellcheck shell=bash
# Steps of scripts/host. Every value that is changed is written down first, so that it can be put back.
# shellcheck disable=SC2153,SC2154 # the options are the script's

# Tests point these elsewhere.
SYS=${UVS_HOST_SYS:-/sys}
PROC=${UVS_HOST_PROC:-/proc}
STATE=${UVS_HOST_STATE:-/run/uvs-host}
PAGES=hugepages/hugepages-2048kB/nr_hugepages

# The numbers of a list like 2-4,7, one a line.
cpus_of() {
    local part
    for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done
}

# run COMMAND…: shows it, and runs it unless this is a dry run.
run() {
    printf '   %s#%s %s\n' "$BLUE" "$PLAIN" "$*"
    [[ -n $DRY ]] || as_root "$@"
}

# put VALUE FILE: as an operator would type it.
put() {
    printf '   %s#%s echo %s >%s\n' "$BLUE" "$PLAIN" "$1" "$2"
    [[ -n $DRY ]] || as_root sh -c "printf '%s\n' '$1' >'$2'"
}

# remember KIND NAME VALUE: for `revert`, unless an earlier apply has written down what was before it.
remember() {
    [[ -z $DRY ]] || return 0
    as_root mkdir -p "$STATE"
    ! grep -q "^$1 $2 " "$STATE/before" 2>/dev/null || return 0
    as_root sh -c "printf '%s\n' '$1 $2 $3' >>'$STATE/before'"
}

# ---- show

show_host() {
    title "Hugepages (2 MiB)"
    show_hugepages
    title "CPUs"
    show_cpus
    title "NICs"
    show_nics
    if [[ -s $STATE/before ]]; then
        title "Changed by apply, and what was before"
        quote <"$STATE/before"
    fi
}

show_hugepages() {
    local node free total
    for node in "$SYS"/devices/system/node/node[0-9]*; do
        total=$(<"$node/$PAGES")
        free=$(<"$node/${PAGES%/*}/free_hugepages")
        if ((total > 0)); then
            good "node ${node##*node}: $total pages, $free free ($((free * 2)) MiB)"
        else
            warn "node ${node##*node}: none; reserve some with: scripts/host apply --hugepages 1024"
        fi
    done
    [[ ! -d $SYS/kernel/mm/hugepages/hugepages-1048576kB ]] ||
        note "1 GiB pages: $(<"$SYS/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"); better reserved at boot (default_hugepagesz=1G hugepages=N)"
}

show_cpus() {
    local cpu governor command_line parameter sibling
    command_line=$(<"$PROC/cmdline")
    note "online: $(<"$SYS/devices/system/cpu/online")"
    for parameter in isolcpus nohz_full rcu_nocbs; do
        if [[ " $command_line " == *" $parameter="* ]]; then
            good "$(grep -o "\b$parameter=[^ ]*" "$PROC/cmdline")"
        else
            warn "the kernel's command line has no $parameter=…"
        fi
    done
    [[ -n $CPUS ]] || note "give --cpus LIST to see what it should have for the workers' CPUs"
    [[ -z $CPUS ]] || advise_isolation
    for cpu in $(cpus_of "$CPUS"); do
        governor=$SYS/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor
        if [[ ! -e $governor ]]; then
            note "CPU $cpu: no frequency scaling here"
        elif [[ $(<"$governor") == performance ]]; then
            good "CPU $cpu: governor performance"
        else
            warn "CPU $cpu: governor $(<"$governor"); scripts/host apply --cpus $CPUS sets performance"
        fi
        sibling=$(cat "$SYS/devices/system/cpu/cpu$cpu/topology/thread_siblings_list" 2>/dev/null || true)
        [[ $sibling != *[,-]* ]] || note "CPU $cpu shares its core with $sibling: leave the other one idle"
    done
}

advise_isolation() {
    note "for the workers on CPUs $CPUS the kernel's command line should have"
    note "  ${BOLD}isolcpus=managed_irq,domain,$CPUS nohz_full=$CPUS rcu_nocbs=$CPUS${PLAIN}"
    note "on Debian: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub and a reboot"
}

show_nics() {
    local device class found=''
    for device in "$SYS"/bus/pci/devices/*; do
        [[ -e $device/class ]] || continue
        class=$(<"$device/class")
        [[ $class == 0x0200* ]] || continue
        found=yes
        show_nic "${device##*/}"
    done
    [[ -n $found ]] || note "no Ethernet controller on PCI"
    if [[ -n $(ls -A "$SYS/kernel/iommu_groups" 2>/dev/null) ]]; then
        good "there is an IOMMU: vfio-pci keeps the NIC's reads and writes to the director's memory"
    else
        warn "no IOMMU (intel_iommu=on or amd_iommu=on): vfio-pci then needs vfio.enable_unsafe_noiommu_mode=1"
    fi
}

show_nic() {
    local node driver interfaces
    node=$(node_of_nic "$1")
    driver=$(driver_of "$1")
    interfaces=$(interfaces_of "$1")
    note "$1: driver ${driver:-none}, NUMA node $node${interfaces:+, interface $interfaces}"
    check_numa "$1" "$node"
}

# Workers on another node than their NIC pay for every packet.
check_numa() {
    local cpu
    for cpu in $(cpus_of "$CPUS"); do
        if (($2 >= 0)) && [[ ! -d $SYS/devices/system/node/node$2/cpu$cpu ]]; then
            warn "CPU $cpu is not on the NUMA node of $1 ($2): choose CPUs $(<"$SYS/devices/system/node/node$2/cpulist")"
        fi
    done
}

# ---- NICs

node_of_nic() {
    local file=$SYS/bus/pci/devices/$1/numa_node
    [[ -e $file ]] && cat "$file" || echo -1
}

driver_of() {
    local link=$SYS/bus/pci/devices/$1/driver
    [[ ! -e $link ]] || basename "$(readlink -f "$link")"
}

interfaces_of() {
    local path names=()
    for path in "$SYS/bus/pci/devices/$1"/net/* "$SYS/bus/pci/devices/$1"/virtio*/net/*; do
        [[ ! -e $path ]] || names+=("${path##*/}")
    done
    echo "${names[*]}"
}

check_nic() {
    [[ $1 =~ ^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]] || die "--nic $1: give an address like 0000:3b:00.0"
    [[ -d $SYS/bus/pci/devices/$1 ]] || die "--nic $1: there is no such PCI device; scripts/host show lists the NICs"
    [[ $(<"$SYS/bus/pci/devices/$1/class") == 0x0200* ]] || die "--nic $1: this is no Ethernet controller"
}

# Taking away the interface that this host is reached by ends the session it is done from.
check_unused() {
    local interface
    [[ -z $FORCE ]] || return 0
    for interface in $(interfaces_of "$1"); do
        if ip -o route show default 2>/dev/null | grep -qw "dev $interface" ||
            ip -o addr show dev "$interface" scope global 2>/dev/null | grep -q inet; then
            die "$1 is $interface, which has addresses or the default route: nobody may reach this host without it (--force)"
        fi
    done
}

# bind_nic ADDRESS DRIVER: with what is installed; '' gives it to the kernel's choice.
bind_nic() {
    if command -v driverctl >/dev/null; then
        if [[ -n $2 ]]; then run driverctl --nosave set-override "$1" "$2"; else run driverctl --nosave unset-override "$1"; fi
    elif command -v dpdk-devbind.py >/dev/null; then
        if [[ -n $2 ]]; then run dpdk-devbind.py --bind "$2" "$1"; else run dpdk-devbind.py --unbind "$1"; fi
    else
        die "neither driverctl nor dpdk-devbind.py is here: install the package driverctl, or dpdk"
    fi
}

# ---- apply

apply_host() {
    [[ -z $HUGEPAGES ]] || { title "Hugepages" && apply_hugepages; }
    if [[ -n $CPUS ]]; then
        title "CPUs"
        apply_governor
        advise_isolation
    fi
    if ((${#NICS[@]} > 0)); then
        title "NICs"
        apply_nics
    fi
    [[ -n $DRY ]] || note "taken back with: scripts/host revert"
}

# The NUMA nodes of the NICs, or node 0.
nodes() {
    local nic node
    {
        for nic in "${NICS[@]}"; do
            node=$(node_of_nic "$nic")
            echo "$((node < 0 ? 0 : node))"
        done
        ((${#NICS[@]} > 0)) || echo 0
    } | sort -un
}

apply_hugepages() {
    local node file before wanted=$(((HUGEPAGES + 1) / 2)) got
    for node in $(nodes); do
        file=$SYS/devices/system/node/node$node/$PAGES
        [[ -e $file ]] || die "node $node has no 2 MiB pages"
        before=$(<"$file")
        if ((before >= wanted)); then
            good "node $node has $before pages already"
            continue
        fi
        remember hugepages "$file" "$before"
        put "$wanted" "$file"
        [[ -z $DRY ]] || continue
        got=$(<"$file")
        ((got >= wanted)) || die "node $node has memory for $got pages only, of $wanted: reserve them at boot (hugepages=$wanted)"
        good "node $node: $got pages"
    done
}

apply_governor() {
    local cpu file
    for cpu in $(cpus_of "$CPUS"); do
        file=$SYS/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor
        if [[ ! -e $file ]]; then
            note "CPU $cpu: no frequency scaling here"
        elif [[ $(<"$file") != performance ]]; then
            remember governor "$file" "$(<"$file")"
            put performance "$file"
        fi
    done
}

apply_nics() {
    local nic before
    for nic in "${NICS[@]}"; do
        check_numa "$nic" "$(node_of_nic "$nic")"
        before=$(driver_of "$nic")
        if [[ $before == "$DRIVER" ]]; then
            good "$nic: driver $DRIVER already"
            continue
        fi
        check_unused "$nic"
        [[ -d $SYS/bus/pci/drivers/$DRIVER ]] || run modprobe "$DRIVER"
        remember driver "$nic" "${before:-none}"
        bind_nic "$nic" "$DRIVER"
    done
}

# ---- revert

revert_host() {
    local kind name value
    if [[ ! -s $STATE/before ]]; then
        note "nothing to take back"
        return 0
    fi
    title "Back to what was before"
    while read -r kind name value; do
        case $kind in
            hugepages | governor) put "$value" "$name" ;;
            driver) bind_nic "$name" "${value/#none/}" ;;
            *) die "$STATE/before: what is $kind?" ;;
        esac
    done < <(tac "$STATE/before")
    [[ -n $DRY ]] || as_root rm -r "$STATE"
}
