package dnslb

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/words"
)

// order is a line of the admin file, an operator's word for the time being:
//
//	down|up|drain SERVER [for SERVICE] until TIME reason TEXT...
//
// SERVER is a label or an address, SERVICE a full name; both may be globs.
type order struct {
	text    string
	verb    verb
	server  string // glob, lower case
	service string // glob, absolute, lower case; "" for all
	until   time.Time
}

// verb is what an order does to a server.
type verb uint8

const (
	orderNone  verb = iota
	orderUp         // it counts as up whatever probes say
	orderDown       // it counts as down
	orderDrain      // it is chosen only if no other is up
)

var verbs = map[string]verb{"up": orderUp, "down": orderDown, "drain": orderDrain}

// String returns the word for the verb.
func (v verb) String() string {
	for word, known := range verbs {
		if known == v {
			return word
		}
	}
	return ""
}

// forced is the order that a member of a pool is under. It is comparable.
type forced struct {
	order verb
	text  string
}

// maxOrder is how many bytes an order may have: it is to be read in one line of
// a log and of an explanation.
const maxOrder = 1024

const adminForm = "'down SERVER [for SERVICE] until TIME reason TEXT...', the same with 'up' or 'drain', with a time such as 2026-01-31T18:00:00Z"

// orderBook finds the orders that servers of services are under, while a table
// is made. A server is compared with the orders once, not for each service that
// has it.
type orderBook struct {
	orders []bookedOrder
	naming [][]*bookedOrder // by target: the orders that name it
}

type bookedOrder struct {
	order
	asked   string // the service that it was compared with last
	isFor   bool   // whether it is for that
	matched bool   // with a server of a service
	used    bool   // for one of these, which is under no earlier order
}

// idleOrder is an order that no server of a service is under.
type idleOrder struct {
	order
	why string
}

func newOrderBook(orders []order) orderBook {
	b := orderBook{orders: make([]bookedOrder, len(orders))}
	for i, o := range orders {
		b.orders[i].order = o
	}
	return b
}

// add adds the next target.
func (b *orderBook) add(label string, addr netip.Addr) {
	var naming []*bookedOrder
	text := addr.String()
	for i := range b.orders {
		if o := &b.orders[i]; matches(o.server, label) || matches(o.server, text) {
			naming = append(naming, o)
		}
	}
	b.naming = append(b.naming, naming)
}

// force returns the first order for a target as a server of a service.
func (b *orderBook) force(service string, target int) (f forced) {
	for _, o := range b.naming[target] {
		if o.asked != service {
			o.asked, o.isFor = service, o.service == "" || matches(o.service, service)
		}
		if !o.isFor {
			continue
		}
		if o.matched = true; f.order == orderNone {
			o.used = true
			f = forced{o.verb, o.text}
		}
	}
	return f
}

// effects returns the orders that servers of services are under, and those that
// none is.
func (b *orderBook) effects() (inForce []order, idle []idleOrder) {
	for _, o := range b.orders {
		switch {
		case o.used:
			inForce = append(inForce, o.order)
		case o.matched:
			idle = append(idle, idleOrder{o.order, "all of its servers are under earlier orders"})
		default:
			idle = append(idle, idleOrder{o.order, "no service has such a server"})
		}
	}
	return inForce, idle
}

func matches(glob, name string) bool {
	ok, _ := path.Match(glob, name) // a bad pattern was found when it was read
	return ok
}

// adminFile is the file of orders.
type adminFile struct {
	watchedFile
	orders []order // all that it holds, ended or not
	broken bool    // it had an error when it was read last
}

// read reads the file if it has changed, and reports whether it has. A file that
// is not there has no orders. The orders of before stay when there is an error.
func (f *adminFile) read() (changed bool, err error) {
	if !f.changed() {
		return false, nil
	}
	orders, err := readOrders(f.path)
	if f.broken = err != nil; f.broken {
		return false, err
	}
	f.orders = orders
	return true, nil
}

func readOrders(name string) ([]order, error) {
	content, err := os.ReadFile(name) // #nosec G304 -- the operator names it
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var orders []order
	err = words.EachLine(name, content, func(_ int, fields []string) error {
		o, err := parseOrder(fields)
		orders = append(orders, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return orders, nil
}

func parseOrder(fields []string) (order, error) {
	o := order{text: strings.Join(fields, " "), verb: verbs[fields[0]]}
	if len(o.text) > maxOrder {
		return o, fmt.Errorf("an order of %d bytes is longer than %d: shorten its reason", len(o.text), maxOrder)
	}
	why := slices.Index(fields, "reason")
	if why < 0 || why+1 == len(fields) || why < 4 || fields[why-2] != "until" || o.verb == orderNone {
		return o, fmt.Errorf("expected %s", adminForm)
	}
	var err error
	if o.until, err = time.Parse(time.RFC3339, fields[why-1]); err != nil {
		return o, fmt.Errorf("'until %s': expected a time such as 2026-01-31T18:00:00Z", fields[why-1])
	}
	o.until = o.until.UTC() // two that are the same compare so
	switch what := fields[1 : why-2]; {
	case len(what) == 1:
		o.server = strings.ToLower(what[0])
	case len(what) == 3 && what[1] == "for":
		o.server = strings.ToLower(what[0])
		o.service = strings.ToLower(strings.TrimSuffix(what[2], ".")) + "."
	default:
		return o, fmt.Errorf("expected %s", adminForm)
	}
	if addr, err := netip.ParseAddr(o.server); err == nil {
		o.server = addr.Unmap().String() // as candidates have it
	}
	for _, glob := range []string{o.server, o.service} {
		if _, err := path.Match(glob, ""); err != nil {
			return o, fmt.Errorf("'%s' is no pattern: '*' and '?' stand for any text and for one character", glob)
		}
	}
	return o, nil
}
