import {ClerkProvider} from '@clerk/nextjs'
import type {ReactNode} from 'react'

export const dynamic = 'force-dynamic'

export default function Layout({children}: {children: ReactNode}) {
  return (
    <ClerkProvider>
      <html lang="en">
        <body>{children}</body>
      </html>
    </ClerkProvider>
  )
}
