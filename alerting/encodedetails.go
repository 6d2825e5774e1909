package alerting

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// details appends the details of a system event, sorted by key, each a string,
// a boolean, a number or a list of strings. A value of any other type becomes
// the text that fmt makes of it.
func (w *encoder) details(details map[string]any) {
	if len(details) == 0 {
		return
	}
	keys := slices.Sorted(maps.Keys(details))
	dst := append(w.key("details"), '{')
	for i, key := range keys[:min(len(keys), w.bounds.details)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, key, min(64, w.bounds.text)), ':')
		dst = w.appendDetail(dst, details[key])
	}
	w.out = append(dst, '}')
}

func (w *encoder) appendDetail(dst []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendText(dst, v, w.bounds.text)
	case []string:
		return appendTexts(dst, v, w.bounds.text, w.bounds.items)
	case bool:
		return strconv.AppendBool(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case uint64:
		return strconv.AppendUint(dst, v, 10)
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return strconv.AppendFloat(dst, v, 'g', -1, 64)
		}
	}
	return appendText(dst, fmt.Sprint(value), w.bounds.text)
}
