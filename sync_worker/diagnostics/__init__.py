"""Why a subject has the access it has, what needs attention, and how much work is left."""
