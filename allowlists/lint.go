package allowlists

func (l *loader) lint(all values) {}
