package alerting

// The parts of Block Kit that messages are made of
// (https://docs.slack.dev/reference/block-kit). There is none that reads
// markup: no mrkdwn, no link, no user, no emoji element.

// slackPayload is the body of a post to an incoming webhook. Text is the
// notification, in which Slack reads markup.
type slackPayload struct {
	Text        string `json:"text"`
	Blocks      []any  `json:"blocks"`
	UnfurlLinks bool   `json:"unfurl_links"` // false: no link in a text is followed
	UnfurlMedia bool   `json:"unfurl_media"`
}

// plainText is a plain_text object; Emoji false keeps :names: as they are.
type plainText struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Emoji bool   `json:"emoji"`
}

// slackHeader is a header block, of at most 150 characters.
type slackHeader struct {
	Type string    `json:"type"`
	Text plainText `json:"text"`
}

// slackSection is a section block with at most 10 fields of 2,000 characters.
type slackSection struct {
	Type   string      `json:"type"`
	Fields []plainText `json:"fields"`
}

// slackContext is a context block.
type slackContext struct {
	Type     string      `json:"type"`
	Elements []plainText `json:"elements"`
}

// slackDivider is a divider block.
type slackDivider struct {
	Type string `json:"type"`
}

// slackRich is a rich_text block.
type slackRich struct {
	Type     string `json:"type"`
	Elements []any  `json:"elements"`
}

// richSection is a rich_text_section or rich_text_preformatted element.
type richSection struct {
	Type     string     `json:"type"`
	Elements []richText `json:"elements"`
}

// richList is a rich_text_list element.
type richList struct {
	Type     string        `json:"type"`
	Style    string        `json:"style"`
	Elements []richSection `json:"elements"`
}

// richText is a text element.
type richText struct {
	Type  string     `json:"type"`
	Text  string     `json:"text"`
	Style *richStyle `json:"style,omitempty"`
}

// richStyle is the style of a text element.
type richStyle struct {
	Bold bool `json:"bold,omitempty"`
}
