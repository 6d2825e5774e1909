package main

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// machinesAge is how old the kernel's neighbour table may be before it is
	// read again, if reading takes less than a twentieth of it.
	machinesAge = time.Second
	// machinesMiss is the same where it does not have the address asked for, so
	// that a machine cannot be a new client with each address that it takes.
	machinesMiss = 2 * time.Millisecond
	// maxNeighbours bounds the neighbours of one interface; those beyond are each
	// a client of their own.
	maxNeighbours = 16384
)

// machines knows which addresses are those of one machine: on an interface,
// those of one link-layer address. It is for sharing out, not for verdicts, as a
// runner chooses its link-layer address itself. One that takes another's is
// counted with it; one that takes many is as many clients; both on its own
// interface only, as whoever shares a network segment can do to its neighbours
// anyway. Safe for concurrent use; on nil no machine is known.
type machines struct {
	log     zerolog.Logger
	list    func() ([]neighbour, error) // the kernel's table
	table   atomic.Pointer[machineTable]
	reading sync.Mutex // held by the one who reads the table anew
	failed  bool       // the log says that reading fails; guarded by reading
}

// A neighbour is one entry of the kernel's table.
type neighbour struct {
	iface string
	addr  netip.Addr // without zone
	link  linkAddr
}

// linkAddr is an Ethernet address.
type linkAddr [6]byte

// A machine is one link-layer address on one interface.
type machine struct {
	iface string
	link  linkAddr
}

// machineTable is what was read at one time. It is never changed.
type machineTable struct {
	due    time.Time                         // when it is to be read anew
	miss   time.Time                         // the same, for an address that it does not have
	byAddr map[string]map[netip.Addr]machine // by interface
	names  map[machine]netip.Addr            // the address that stands for each
}

func newMachines(log zerolog.Logger) *machines { return &machines{log: log, list: readNeighbours} }

// of gives the address that stands for the machine of a client on an interface;
// zero if that is not known. Whoever comes first when the table is old reads it
// anew; nobody else waits.
func (m *machines) of(iface string, client netip.Addr) netip.Addr {
	if m == nil || iface == "" {
		return netip.Addr{}
	}
	table := m.table.Load()
	if now := time.Now(); table.isOld(iface, client, now) && m.reading.TryLock() {
		table = m.read(table, now)
		m.reading.Unlock()
	}
	if table == nil {
		return netip.Addr{}
	}
	return table.names[table.byAddr[iface][client]]
}

// isOld reports whether the table, nil for none, is to be read anew before an
// address is looked up.
func (t *machineTable) isOld(iface string, client netip.Addr, now time.Time) bool {
	if t == nil || now.After(t.due) {
		return true
	}
	_, known := t.byAddr[iface][client]
	return !known && now.After(t.miss)
}

// read reads the table anew. Where that fails the old one goes on.
func (m *machines) read(old *machineTable, now time.Time) *machineTable {
	if old == nil {
		old = &machineTable{}
	}
	neighbours, err := m.list()
	if err != nil && !m.failed {
		m.log.Warn().Err(err).Msg("the neighbour table cannot be read: a machine with several addresses counts as several clients")
	}
	m.failed = err != nil
	table := &machineTable{byAddr: old.byAddr, names: old.names}
	if err == nil {
		table = newMachineTable(neighbours, old)
	}
	took := time.Since(now)
	table.due, table.miss = now.Add(took+max(machinesAge, 20*took)), now.Add(took+max(machinesMiss, 20*took))
	m.table.Store(table)
	return table
}

// newMachineTable finds the machines among neighbours. The address that stands
// for one stays as long as the machine is there and no other has it, so that
// taking a lower one makes no new client; at first it is the lowest.
func newMachineTable(neighbours []neighbour, old *machineTable) *machineTable {
	t := &machineTable{byAddr: make(map[string]map[netip.Addr]machine), names: make(map[machine]netip.Addr)}
	for _, n := range neighbours {
		of := t.byAddr[n.iface]
		if of == nil {
			of = make(map[netip.Addr]machine)
			t.byAddr[n.iface] = of
		}
		if len(of) == maxNeighbours || isShared(n.link) {
			continue
		}
		who := machine{n.iface, n.link}
		of[n.addr] = who
		if lowest := t.names[who]; !lowest.IsValid() || n.addr.Less(lowest) {
			t.names[who] = n.addr
		}
	}
	for who := range t.names {
		name := old.names[who]
		if has, taken := t.byAddr[who.iface][name]; name.IsValid() && (!taken || has == who) {
			t.names[who] = name
		}
	}
	return t
}

// isShared reports whether a link-layer address is none of one machine: none at
// all, a group's, or the one that all of an Azure network seem to have.
func isShared(link linkAddr) bool {
	return link == linkAddr{} || link[0]&1 != 0 || link == linkAddr{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}
}
