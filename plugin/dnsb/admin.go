package dnsb

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/stamp"
)

// order is a line of the admin file, the word of an operator for the time being:
//
//	drain  NODE           until TIME reason TEXT...
//	forget NODE           until TIME reason TEXT...
//	pin    PREFIX NODE... until TIME reason TEXT...
type order struct {
	text   string
	at     string // file and line
	verb   string
	prefix netip.Prefix // of a pin
	nodes  []string
	until  time.Time
	reason string
	told   bool // that it has ended
}

// adminForm is what a line of the file may be.
const adminForm = "'drain NODE until TIME reason TEXT...', the same with 'forget', or 'pin PREFIX NODE... until TIME reason TEXT...', with a time such as 2026-01-31T18:00:00Z"

var verbs = []string{"drain", "forget", "pin"}

// readAdmin reads the admin file. One that is not there has no orders.
func readAdmin(conf *config) ([]order, stamp.Stamp, error) {
	if conf.admin == "" {
		return nil, stamp.Stamp{}, nil
	}
	was, _ := stamp.Of(conf.admin)
	content, err := os.ReadFile(conf.admin) // #nosec G304 -- the operator names it
	if errors.Is(err, fs.ErrNotExist) {
		return nil, was, nil
	}
	if err != nil {
		return nil, was, fmt.Errorf("admin: %w", err)
	}
	var orders []order
	err = corefile.EachLine(conf.admin, content, func(number int, fields []string) error {
		o, err := parseOrder(conf, fields)
		o.at = conf.admin + ":" + strconv.Itoa(number)
		orders = append(orders, o)
		return err
	})
	return orders, was, err
}

func parseOrder(conf *config, fields []string) (order, error) {
	o := order{text: strings.Join(fields, " ")}
	if !slices.Contains(verbs, fields[0]) {
		return o, fmt.Errorf("unknown order '%s': write %s", fields[0], adminForm)
	}
	why := slices.Index(fields, "reason")
	if why < 0 || why+1 == len(fields) {
		return o, fmt.Errorf("'%s' says no reason: add 'reason TEXT...' at its end", o.text)
	}
	fields, o.reason = fields[:why], strings.Join(fields[why+1:], " ")
	end := slices.Index(fields, "until")
	if end < 0 {
		return o, fmt.Errorf("'%s' has no end: add 'until TIME' before its reason, with a time such as 2026-01-31T18:00:00Z", o.text)
	}
	if len(fields) != end+2 {
		return o, fmt.Errorf("write one time after 'until', such as 2026-01-31T18:00:00Z, and then 'reason TEXT...'")
	}
	var err error
	if o.until, err = time.Parse(time.RFC3339, fields[end+1]); err != nil {
		return o, fmt.Errorf("'until %s': write date, time and zone, such as 2026-01-31T18:00:00Z", fields[end+1])
	}
	fields = fields[:end]
	o.verb = fields[0]
	switch {
	case (o.verb == "drain" || o.verb == "forget") && len(fields) == 2:
		o.nodes = fields[1:]
	case o.verb == "pin" && len(fields) > 2:
		if o.prefix, err = corefile.Prefix(fields[1]); err != nil {
			return o, err
		}
		o.nodes = fields[2:]
	default:
		return o, fmt.Errorf("'%s': write %s", strings.Join(fields, " "), adminForm)
	}
	o.nodes = slices.Clone(o.nodes)
	for _, node := range o.nodes {
		if !conf.knows(node) {
			return o, unknownNode(node)
		}
	}
	return o, nil
}

// orders are those in force, for one snapshot.
type orders struct {
	drained   map[string]*order
	forgotten map[string]*order  // nodes that are not to be kept when they are dead
	pins      *bart.Table[*pin]  // nil: none
	ends      time.Time          // when the first of them ends; zero: there is none
	counts    map[string]float64 // by verb
}

// pin is an order to refer the resolvers of a prefix to nodes, best first.
type pin struct {
	nodes []nodeID
	order *order
}

// inForce returns the orders that have not ended. The end of each is logged once.
// Of two orders for the same prefix or node the later one counts.
func inForce(all []order, t *tables) orders {
	out := orders{drained: make(map[string]*order), forgotten: make(map[string]*order), counts: make(map[string]float64)}
	now := time.Now()
	for i := range all {
		o := &all[i]
		if !now.Before(o.until) {
			if !o.told {
				log.Infof("The order of %s has ended and may be removed: %s", o.at, o.text)
				o.told = true
			}
			continue
		}
		if out.ends.IsZero() || o.until.Before(out.ends) {
			out.ends = o.until
		}
		out.counts[o.verb]++
		switch o.verb {
		case "drain":
			out.drained[o.nodes[0]] = o
			continue
		case "forget":
			out.forgotten[o.nodes[0]] = o
			continue
		}
		ids := make([]nodeID, len(o.nodes))
		for i, node := range o.nodes {
			ids[i] = t.id(node)
		}
		if out.pins == nil {
			out.pins = new(bart.Table[*pin])
		}
		out.pins.Insert(o.prefix, &pin{ids, o})
	}
	return out
}

// readOrders reads the admin file again if it has changed, and reports whether
// there are other orders in force now. A file with an error changes nothing.
func (d *DNSB) readOrders() bool {
	ends := d.snapshot.Load().orders.ends
	ended := !ends.IsZero() && !time.Now().Before(ends)
	if now, _ := stamp.Of(d.conf.admin); now.Is(d.adminRead) {
		return ended
	}
	all, was, err := readAdmin(d.conf)
	d.adminRead = was
	if err != nil {
		log.Errorf("The orders stay as they were: %s", err)
		return ended
	}
	d.mu.Lock()
	d.orders = all
	d.mu.Unlock()
	texts := make([]string, len(all))
	for i, o := range all {
		texts[i] = o.text
	}
	log.Infof("Read %s again: %d orders: %s", d.conf.admin, len(all), strings.Join(texts, "; "))
	return true
}
