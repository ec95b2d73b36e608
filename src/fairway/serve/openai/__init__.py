"""OpenAI's API: completions and chat, with right log-probabilities; tokenizing."""
