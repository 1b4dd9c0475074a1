package main

import "testing"

func TestForwardsAreReadAndWrittenAlike(t *testing.T) {
	for _, text := range []string{"0:apiserver", "6443:apiserver", "8080:10.1.2.3:80", "8080:svc/default/midgard-game:80", "0:svc/a/b:http"} {
		f, err := parseForward(text)
		if err != nil || f.String() != text {
			t.Errorf("%q became %q, %v", text, f, err)
		}
	}
}

func TestBadForwardsAreRefused(t *testing.T) {
	for _, text := range []string{"", "8080", ":apiserver", "70000:apiserver", "x:apiserver", "8080:", "8080:10.1.2.3", "8080:10.1.2.3:0",
		"8080:name:80", "8080:svc/a:80", "8080:svc/a/b", "8080:svc//b:80", "8080:svc/a/b:", "8080:svc/a/b/c:80", "8080:svc/a/b:80:90"} {
		if f, err := parseForward(text); err == nil {
			t.Errorf("%q was taken as %q", text, f)
		}
	}
}

func wish(t *testing.T, text string) forward {
	t.Helper()
	f, err := parseForward(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestARunningForwardFulfilsTheSameWishAgain(t *testing.T) {
	running := []backgroundForwards{{Open: []openForward{{Port: 8080, Target: "svc/a/b:80"}}}}
	for _, text := range []string{"8080:svc/a/b:80", "0:svc/a/b:80"} {
		if f, err := findForward(running, wish(t, text)); err != nil || f == nil || f.Port != 8080 {
			t.Errorf("%s: %v %v", text, f, err)
		}
	}
	for _, text := range []string{"8081:svc/a/b:80", "0:svc/a/c:80"} {
		if f, err := findForward(running, wish(t, text)); err != nil || f != nil {
			t.Errorf("%s: %v %v", text, f, err)
		}
	}
	if _, err := findForward(running, wish(t, "8080:svc/a/c:80")); err == nil {
		t.Error("a port was given to two targets")
	}
}
