"""What the text games share: a metered language model, sampling, rankings, planted secrets, verbatim look-up."""
