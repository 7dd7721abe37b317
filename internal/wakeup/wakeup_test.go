package wakeup

import "testing"

func received(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestSignalCoalesces(t *testing.T) {
	s := New()
	if s.Pending() {
		t.Error("Expected a new Signal not to be set")
	}
	s.Set()
	s.Set()
	if !s.Pending() || !received(s) || received(s) {
		t.Error("Expected two Sets to be one wake-up")
	}
	s.Set()
	if !received(s) {
		t.Error("Expected a Set after a wake-up to be another one")
	}
}

func TestBroadcastWakesEachSubscriber(t *testing.T) {
	var b Broadcast
	b.Set() // nobody
	first, unsubscribe := b.Subscribe()
	second, _ := b.Subscribe()
	if received(first) {
		t.Error("Expected no wake-up from before the subscription")
	}
	b.Set()
	b.Set()
	for _, ch := range []<-chan struct{}{first, second} {
		if !received(ch) || received(ch) {
			t.Error("Expected one wake-up for each subscriber")
		}
	}
	unsubscribe()
	b.Set()
	if received(first) || !received(second) {
		t.Error("Expected no wake-up after the end of the subscription")
	}
}
