"""HTTP and nothing else: it parses, authorises, calls the domain, and answers."""
