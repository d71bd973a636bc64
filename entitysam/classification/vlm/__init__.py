"""Zero-shot classification by a vision-language model behind an OpenAI-compatible server (supplement, section 1)."""
