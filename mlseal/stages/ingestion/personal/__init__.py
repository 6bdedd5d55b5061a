"""Parts of the stages that look for personal data and take them out: model, recognizers, scanner, sample, sources."""
