"""How the dashboard looks."""

from __future__ import annotations

CSS = """
.bp-header {
  border-bottom: 1px solid #d5dbe1; padding: 4px 12px; align-items: center; background: #ffffff;
}
.bp-brand { font-size: 20px; font-weight: 700; color: #0b4f6c; letter-spacing: 0.02em; }
.bp-name { font-size: 15px; color: #52606d; margin-left: 12px; }
.bp-note { font-size: 12px; color: #52606d; }
.bp-controls { padding: 8px 12px; border-right: 1px solid #e4e8ec; background: #f7f9fa; }
"""
