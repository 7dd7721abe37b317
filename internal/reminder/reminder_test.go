package reminder

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailureIsLoggedWhenItBeginsAndEveryTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Failure
		if f.Recovered() || f.Failing() {
			t.Error("Expected no news of what never failed")
		}
		logged := 0
		began := time.Now()
		for range 60 {
			if f.Failed("timeout") {
				logged++
			}
			time.Sleep(30 * time.Second)
		}
		if logged != 3 {
			t.Errorf("Expected 3 lines in 30 minutes, got %d", logged)
		}
		if !f.Since().Equal(began) {
			t.Errorf("Expected a failure since %v, got %v", began, f.Since())
		}
		if !f.Failed("refused") || f.Failed("refused") {
			t.Error("Expected a failure of another kind to be logged once")
		}
		if !f.Recovered() || f.Failing() || f.Recovered() {
			t.Error("Expected the end of the failure to be logged once")
		}
	})
}

func TestShortFailureIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := Failure{Delay: 30 * time.Second}
		if f.Failed("timeout") {
			t.Error("Expected no line about a failure that has just begun")
		}
		time.Sleep(20 * time.Second)
		if f.Failed("timeout") || f.Recovered() {
			t.Error("Expected no line about a failure of 20 s, and none about its end")
		}
		f.Failed("timeout")
		time.Sleep(30 * time.Second)
		if !f.Failed("timeout") || !f.Recovered() {
			t.Error("Expected a line about a failure of 30 s, and one about its end")
		}
	})
}

func TestKeyedFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k Keyed
		if !k.Failed("par1", "scope") || k.Failed("par1", "scope") {
			t.Error("Expected the same failure to be logged once")
		}
		if !k.Failed("nyc1", "scope") || !k.Failed("par1", "serial") {
			t.Error("Expected another key, and another kind, to be news")
		}
		time.Sleep(Interval)
		if !k.Failed("par1", "serial") {
			t.Error("Expected a reminder")
		}
		for i := range 2 * maxKeys {
			k.Failed(strconv.Itoa(i), "scope")
		}
		if n := len(k.failures); n > maxKeys {
			t.Errorf("Expected at most %d keys, got %d", maxKeys, n)
		}
	})
}
