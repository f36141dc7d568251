package pulsar_test

import (
	"strings"
	"testing"

	"millrace/rest/pulsar"
)

func TestATopicIsTheStreamOfItsNameAndAnMQTTTopic(t *testing.T) {
	for _, c := range []struct{ path, shape, stream, topic string }{
		{"/public/default/x", "", "public/default/x", "x"},
		{"/persistent/public/default/x", "", "public/default/x", "x"},
		{"/non-persistent/public/default/x", "", "public/default/x", "x"},
		{"/public/default/a%2Fb%2fc", "", "public/default/a/b/c", "a/b/c"},
		{"/public/default/%2Fa%2F", "", "public/default//a/", "/a/"},
		{"/acme/default/x", "", "acme/default/x", "acme/default/x"},
		{"/public/other/x%20y", "", "public/other/x y", "public/other/x y"},
		{"/persistent/a/b", "", "persistent/a/b", "persistent/a/b"},
		{"/persistent/persistent/a/b", "", "persistent/a/b", "persistent/a/b"},
		{"/a/partitions/3", "", "a/partitions/3", "a/partitions/3"},
		{"/a/b/partitions/partitions/3", "/partitions/{partition}", "a/b/partitions", "a/b/partitions"},
		{"/persistent/a/b/c/partitions/3", "/partitions/{partition}", "a/b/c", "a/b/c"},
		{"/persistent/a/b/partitions/3", "/partitions/{partition}", "persistent/a/b", "persistent/a/b"},
	} {
		if stream, topic, _, err := pulsar.ParsePath(c.path, c.shape); err != nil || stream != c.stream || topic != c.topic {
			t.Errorf("%s: %q %q %v", c.path, stream, topic, err)
		}
	}
	for _, path := range []string{"/a/b", "/a/b/c/d", "/", "//", "/a/b/c/"} {
		if stream, _, _, err := pulsar.ParsePath(path, ""); stream != "" || err != nil {
			t.Errorf("%s: %q %v", path, stream, err)
		}
	}
	for _, path := range []string{"//b/c", "/a//c", "/a/b/", "/a%2Fb/c/d", "/a/b/%zz"} {
		if stream, _, _, err := pulsar.ParsePath(path, ""); err == nil {
			t.Errorf("%s: %q", path, stream)
		}
	}
}

// FuzzPaths: a path that is taken names a tenant, a namespace and a topic.
func FuzzPaths(f *testing.F) {
	for _, p := range []string{"/public/default/x", "/persistent/a/b/c%2Fd/partitions/1/messages", "/a/b/c/subscription/s/consumer/1/messages", "//%2F/%"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, shape := range pulsar.Shapes() {
			stream, topic, partition, err := pulsar.ParsePath(path, shape)
			if err == nil && stream != "" && (strings.Count(stream, "/") < 2 || topic == "" || partition < -1) {
				t.Fatalf("%q as %q: %q %q %d", path, shape, stream, topic, partition)
			}
		}
	})
}

func TestMessageIDsAreThoseOfPulsar(t *testing.T) {
	for _, c := range []struct{ in, base64, text string }{
		{"CAAQAw==", `"CAAQAxgA"`, "0:3:0"}, // Pulsar leaves a partition of none out
		{"CAEQAhgD", `"CAEQAhgD"`, "1:2:3"},
		{"1:2:3", `"CAEQAhgD"`, "1:2:3"},
		{"1:2", `"CAEQAhgA"`, "1:2:0"},
		{"1:2:-1", `"CAEQAhgA"`, "1:2:0"},
		{"CAEQAhj///////////8BIAU=", `"CAEQAhgA"`, "1:2:0"}, // partition -1, batch index 5
		{"18446744073709551615:18446744073709551615:2147483647", `"CP///////////wEQ////////////ARj/////Bw=="`, "18446744073709551615:18446744073709551615:2147483647"},
	} {
		if b, text, ok := pulsar.RoundTripID(c.in); !ok || b != c.base64 || text != c.text {
			t.Errorf("%s: %s %s %v", c.in, b, text, ok)
		}
	}
	for _, bad := range []string{"", "x", "CAA=", "1", "1:", "1:2:x", "1:2:3:4", "-1:2:3", "CgAQAw==", "EAM="} {
		if b, _, ok := pulsar.RoundTripID(bad); ok {
			t.Errorf("%q is %s", bad, b)
		}
	}
}

// FuzzMessageIDs: what is taken as an id is written in a form that means the same.
func FuzzMessageIDs(f *testing.F) {
	for _, s := range []string{"CAAQAw==", "CAEQAhgD", "1:2:3", "1:2:-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, text, ok := pulsar.RoundTripID(s)
		if !ok {
			return
		}
		if again, _, ok := pulsar.RoundTripID(strings.Trim(b, `"`)); !ok || again != b {
			t.Fatalf("%q is %s, which is %s", s, b, again)
		}
		if again, _, ok := pulsar.RoundTripID(text); !ok || again != b {
			t.Fatalf("%q is %s, which is %s", s, text, again)
		}
	})
}
