package dnsclient

import (
	"errors"
	"testing"
)

func TestJoin(t *testing.T) {
	a, b := errors.New("192.0.2.1: refused"), errors.New("192.0.2.2: no answer in time")
	for _, tc := range []struct {
		a, b error
		want string
	}{
		{a, nil, a.Error()},
		{nil, b, b.Error()},
		{a, b, "192.0.2.1: refused; 192.0.2.2: no answer in time"},
	} {
		err := Join(tc.a, tc.b)
		if err == nil || err.Error() != tc.want {
			t.Errorf("Expected %q, got %v", tc.want, err)
		}
		for _, want := range []error{tc.a, tc.b} {
			if want != nil && !errors.Is(err, want) {
				t.Errorf("Expected an error that is %v, got %v", want, err)
			}
		}
	}
	if err := Join(nil, nil); err != nil {
		t.Errorf("Expected no error, got %v", err)
	}
}
