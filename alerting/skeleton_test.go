package alerting_test

import (
	"bufio"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/idna"

	"sallyport/alerting"
)

// TestConfusablesAreCurrent makes confusables.txt from Unicode's own file:
//
//	CONFUSABLES=/path/of/confusables.txt go test ./alerting -run Confusables -update
//
// With -update it writes the file, else it holds it against it. Without
// CONFUSABLES it looks at what is there.
func TestConfusablesAreCurrent(t *testing.T) {
	const path = "confusables.txt"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if source := os.Getenv("CONFUSABLES"); source != "" {
		made := makeConfusables(t, source, string(have))
		if *update {
			if err := os.WriteFile(path, []byte(made), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if made != string(have) {
			t.Error("confusables.txt is not what Unicode's file gives; -update writes it")
		}
	}
	for _, part := range []string{"UTS #39", "Version: ", "UNICODE LICENSE V3", "Copyright ©"} {
		if !strings.Contains(string(have), part) {
			t.Errorf("the header does not say %s", part)
		}
	}
}

// makeConfusables takes what a label of a host name may hold and looks like
// ASCII; the licence in the header stays as it is.
func makeConfusables(t *testing.T, source, have string) string {
	t.Helper()
	f, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	profile := idna.New(idna.MapForLookup(), idna.Transitional(false))
	ascii := regexp.MustCompile(`^[a-z0-9-]+$`)
	looks := make(map[string][]rune)
	var said []string // of Unicode's header
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimPrefix(lines.Text(), "\ufeff")
		if strings.HasPrefix(line, "# Date:") || strings.HasPrefix(line, "# Version:") {
			said = append(said, line)
		}
		fields := strings.Split(line, ";")
		if len(fields) < 3 || strings.HasPrefix(line, "#") {
			continue
		}
		from, to := fromHex(t, fields[0]), strings.ToLower(fromHex(t, fields[1]))
		mapped, err := profile.ToUnicode(from)
		if err != nil || mapped != from || from == to || !ascii.MatchString(to) {
			continue
		}
		looks[to] = append(looks[to], []rune(from)...)
	}
	_, licence, _ := strings.Cut(have, "# UNICODE LICENSE V3")
	licence, _, _ = strings.Cut(licence, "\n\n")
	out := "# What looks like the letters, digits and hyphens of a host name: from confusables.txt of\n" +
		"# Unicode Security Mechanisms for UTS #39, https://www.unicode.org/reports/tr39, without the\n" +
		"# characters that host names cannot hold. Each line is a look, and the characters that have it.\n#\n" +
		strings.Join(said, "\n") + "\n#\n# UNICODE LICENSE V3" + licence + "\n\n"
	for _, to := range slices.Sorted(maps.Keys(looks)) {
		slices.Sort(looks[to])
		out += to + " " + string(looks[to]) + "\n"
	}
	return out
}

// fromHex reads code points in hexadecimal.
func fromHex(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	for _, word := range strings.Fields(text) {
		n, err := strconv.ParseInt(word, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteRune(rune(n))
	}
	return out.String()
}

func TestSkeletonsOfWhatLooksAlikeAreOne(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		alike bool
	}{
		{"github", "github", true},
		{"github", "glthub", false}, // a small i is no small l
		{"paypal", "paypa1", true},
		{"google", "g00gle", true},
		{"modern", "rnodern", true},
		{"modern", "modem", true},
		{"webpack", "vvebpack", true},
		{"docker", "clocker", true},
		{"apple", "аррӏе", true}, // all of it Cyrillic
		{"github", "gіthub", true},
		{"microsoft", "mісrоѕоft", true},
		{"python", "pythön", false},
		{"github", "gitlab", false},
	} {
		if alike := alerting.Skeleton(c.a) == alerting.Skeleton(c.b); alike != c.alike {
			t.Errorf("%s and %s: %v, skeletons %s and %s", c.a, c.b, alike, alerting.Skeleton(c.a), alerting.Skeleton(c.b))
		}
	}
}
