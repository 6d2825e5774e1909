package allowlists

// presetText finds the text of a built-in preset.
func presetText(name string) ([]byte, bool) { return nil, false }

// presetNames lists the built-in presets.
func presetNames() []string { return nil }
